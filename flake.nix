{
  description = "casfs: a content-addressed archive and filesystem for live television over MoQ";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      forEachSystem = f: lib.genAttrs [ "x86_64-linux" "aarch64-linux" ]
        (system: f nixpkgs.legacyPackages.${system});
    in
    {
      overlays.default = final: prev: {
        casfs = final.callPackage ./nix/package.nix { };
      };

      packages = forEachSystem (pkgs: rec {
        casfs = pkgs.callPackage ./nix/package.nix { };
        default = casfs;
      });

      nixosModules.default = { lib, pkgs, ... }: {
        imports = [ ./nix/module.nix ];
        services.casfs.package =
          lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      };

      checks = forEachSystem (pkgs: {
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        machine = pkgs.testers.runNixOSTest
          (import ./nix/machine-test.nix { module = self.nixosModules.default; });
      });

      # Everything that tools/setup would else ask a Debian system for.
      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            e2fsprogs
            ffmpeg
            fuse3
            gcc
            jq
            nix
            pkg-config
            python3
            ruff
            strace
            systemd
            xfsprogs
          ];
        };
      });

      formatter = forEachSystem (pkgs: pkgs.nixfmt);
    };
}
