# What nix/module.nix makes of a configuration, with the stand-ins for nixpkgs and NixOS here; `lib`
# may be nixpkgs' own.
# `configuration`: a NixOS module; `module`: the one that declares services.casfs; `casfs`, `prefix`:
# where the programs are.
{ configuration ? { }
, module ? ../../../nix/module.nix
, lib ? import ./lib.nix
, casfs ? "/opt/casfs/.venv"
, prefix ? "/usr"
}:
let
  inherit (lib) mkOption types;

  program = name: path: {
    type = "derivation";
    inherit name;
    outPath = path;
    meta.mainProgram = name;
  };
  pkgs = {
    stdenv.hostPlatform.system = "x86_64-linux";
    casfs = program "casfs" casfs;
    coreutils = program "coreutils" prefix;
    fuse3 = program "fuse3" prefix;
    formats.toml = _: {
      type = types.attrsOf types.anything;
      generate = name: value: { inherit name value; outPath = "/nix/store/${name}"; };
    };
  };

  # systemd.unit(5), "path is escaped": only what paths that the module takes can hold.
  utils.escapeSystemdPath = path:
    builtins.replaceStrings [ "-" "/" "+" "@" ] [ "\\x2d" "-" "\\x2b" "\\x40" ]
      (builtins.substring 1 (builtins.stringLength path) path);

  list = mkOption { type = types.listOf types.str; default = [ ]; };
  set = mkOption { type = types.attrsOf types.anything; default = { }; };
  things = mkOption { type = types.listOf types.anything; default = [ ]; };
  unit = {
    description = mkOption { type = types.str; default = ""; };
    documentation = list;
    wants = list;
    requires = list;
    after = list;
    before = list;
    wantedBy = list;
    unitConfig = set;
  };
  service = unit // {
    serviceConfig = set;
    environment = set;
    path = things;
    stopIfChanged = mkOption { type = types.bool; default = true; };
    reloadTriggers = things;
    restartTriggers = things;
  };
  many = options: mkOption {
    type = types.attrsOf (types.submodule { inherit options; });
    default = { };
  };

  # The options of NixOS that the module sets.
  nixos.options = {
    assertions = things;
    warnings = list;
    environment = { etc = set; systemPackages = things; };
    programs.fuse = {
      enable = mkOption { type = types.bool; default = false; };
      userAllowOther = mkOption { type = types.bool; default = false; };
    };
    systemd.services = many service;
    systemd.timers = many (unit // { timerConfig = set; });
    users.users = set;
    users.groups = set;
  };

  inherit (lib.evalModules {
    modules = [ nixos module configuration ];
    specialArgs = { inherit pkgs utils; };
  }) config;
in
{
  failed = map (item: item.message) (builtins.filter (item: !item.assertion) config.assertions);
  settings = config.services.casfs.settings;
  files = builtins.mapAttrs (_: file: "${file.source}") config.environment.etc;
  inherit (config) warnings;
  inherit (config.systemd) services timers;
  inherit (config.users) users groups;
  fuse = config.programs.fuse;
  packages = map toString config.environment.systemPackages;
}
