# Stands in for nixpkgs where flake.nix is looked at: every package is a name, none can be built.
{
  outputs = { self }:
    let
      lib = import ./lib.nix;
      package = system: name: derivation { inherit name system; builder = "/nothing"; } // {
        meta.mainProgram = name;
      };
      packagesOf = system:
        let
          named = names: builtins.listToAttrs
            (map (name: { inherit name; value = package system name; }) names);
          application = arguments: package system "${arguments.pname}-${arguments.version}" // {
            inherit (arguments) meta;
            given = arguments;
          };
          pkgs = named [
            "e2fsprogs" "ffmpeg" "fuse3" "gcc" "jq" "nix" "nixfmt" "pkg-config" "python3" "ruff"
            "strace" "systemd" "xfsprogs"
          ] // {
            stdenv.hostPlatform.system = system;
            python3Packages = named [
              "aioquic" "blake3" "click" "cryptography" "httpx" "msgspec" "prometheus-client"
              "pyfuse3" "rich" "setuptools" "sqlite-utils" "trio"
            ] // { buildPythonApplication = application; };
            callPackage = file: _: import file { inherit lib; inherit (pkgs) fuse3 python3Packages; };
            mkShell = arguments: package system "shell" // { given = arguments; };
            testers.runNixOSTest = test: package system "test-${test.name}";
          };
        in
        pkgs;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] packagesOf;
    };
}
