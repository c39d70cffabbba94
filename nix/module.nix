# services.casfs: live TV over MoQ, archived (`archive`), proved (`verify`) and shown (`mount`).
#
#   services.casfs = {
#     casRoot = "/pool/cas";
#     manifestRoot = "/fast/manifests";
#     requireMountPoints = [ "/pool" "/fast" ];
#     archive.enable = true;
#     archive.directoryUrl = "https://tv.example/api/public-streams";
#   };
#
# Nothing here ever deletes: an archive whose service is disabled stays where it is, and readable.
{ config, lib, options, pkgs, utils, ... }:

let
  inherit (lib) getExe mkDefault mkEnableOption mkIf mkMerge mkOption optional optionalAttrs
    optionals types;

  cfg = config.services.casfs;
  enabled = cfg.archive.enable || cfg.verify.enable || cfg.mount.enable;

  toml = pkgs.formats.toml { };
  configFile = "/etc/casfs/config.toml";
  generated = toml.generate "casfs.toml" cfg.settings;

  casfs = getExe cfg.package;
  installDirectories =
    "${pkgs.coreutils}/bin/install -d -m 0755 -o ${cfg.user} -g ${cfg.group}";
  unmount = "${pkgs.fuse3}/bin/fusermount3 -uzq ${cfg.mount.path}";

  # No character that means anything to systemd: such a path would need more than one escape.
  absolutePath = types.strMatching "(/[A-Za-z0-9._@+-]+)+";
  url = types.strMatching "https?://[^[:space:]]+";
  duration = types.strMatching "[0-9]+[smhd]";

  roots = [ cfg.casRoot cfg.manifestRoot ];
  # systemd makes these itself, and lets the unit write there.
  isState = lib.hasPrefix "/var/lib/casfs/";
  elsewhere = lib.filter (root: !(isState root)) roots;
  isWithin = outer: inner: lib.hasPrefix "${outer}/" "${inner}/";
  isPlain = path: builtins.match ".*/\\.\\.?(/.*)?" path == null;

  # A disk that is mounted later starts its units then: failed assertions are not tried again.
  wantedBy = [ "multi-user.target" ]
    ++ map (path: "${utils.escapeSystemdPath path}.mount") cfg.requireMountPoints;
  mountsFor = {
    RequiresMountsFor = roots;
  } // optionalAttrs (cfg.requireMountPoints != [ ]) {
    AssertPathIsMountPoint = cfg.requireMountPoints;
  };

  # What needs no mount namespace, so that it serves the mount as well.
  restrictions = {
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    NoNewPrivileges = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    SystemCallErrorNumber = "EPERM";
    UMask = "0022";
  };
  sandbox = restrictions // {
    CapabilityBoundingSet = "";
    DevicePolicy = "closed";
    PrivateDevices = true;
    PrivateTmp = true;
    PrivateUsers = true;
    ProcSubset = "pid";
    ProtectControlGroups = true;
    ProtectHome = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    ProtectSystem = "strict";
    RemoveIPC = true;
  };

  renamed = from: to: lib.mkRenamedOptionModule
    ([ "services" "every-channel" "ec-node" "archive" ] ++ from)
    ([ "services" "casfs" ] ++ to);
in
{
  imports = [
    (renamed [ "enable" ] [ "archive" "enable" ])
    (renamed [ "outputDir" ] [ "casRoot" ])
    (renamed [ "manifestDir" ] [ "manifestRoot" ])
  ];

  options.services.casfs = {
    package = lib.mkPackageOption pkgs "casfs" { };

    user = mkOption {
      type = types.str;
      default = "casfs";
      description = "Whom the archive belongs to; made if it is `casfs`.";
    };

    group = mkOption {
      type = types.str;
      default = "casfs";
      description = "The group of the archive; made if it is `casfs`.";
    };

    casRoot = mkOption {
      type = absolutePath;
      default = "/var/lib/casfs/cas";
      description = "Where the objects are. Grows with the broadcasts.";
    };

    manifestRoot = mkOption {
      type = absolutePath;
      default = "/var/lib/casfs/manifests";
      description = "Where the manifests and the index are. Neither root may lie in the other.";
    };

    requireMountPoints = mkOption {
      type = types.listOf absolutePath;
      default = [ ];
      example = [ "/pool" ];
      description = ''
        Nothing starts unless each of these is a mount point. Name the disks of both roots: a disk
        that is missing at the very first start would otherwise be filled on `/`.
      '';
    };

    settings = mkOption {
      inherit (toml) type;
      default = { };
      example = { expire-when-short.enable = true; };
      description = ''
        The configuration file, /etc/casfs/config.toml: see docs/commands.md, "Settings". It is in
        the Nix store, which everyone can read: secrets belong into `archive.credentials` or
        `archive.environmentFile`. A change is taken up without ending any recording.
      '';
    };

    archive = {
      enable = mkEnableOption "recording whatever is on air (casfs auto-archive)";

      directoryUrl = mkOption {
        type = types.nullOr (types.strMatching "(https?|file)://[^[:space:]]+");
        default = null;
        example = "https://tv.example/api/public-streams";
        description = "A public stream directory; more of them in `settings.auto-archive.directory`.";
      };

      relayUrl = mkOption {
        type = types.nullOr url;
        default = null;
        description = "The relay of broadcasts for which nothing else names one.";
      };

      broadcasts = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Broadcasts at `relayUrl` to record whatever any directory says.";
      };

      include = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "news/*" ];
        description = "Record only broadcasts whose names match one of these globs.";
      };

      exclude = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Do not record broadcasts whose names match; wins over `include`.";
      };

      pollInterval = mkOption {
        type = duration;
        default = "30s";
        description = "How often directories are asked.";
      };

      maxWorkers = mkOption {
        type = types.ints.between 1 10000;
        default = 100;
        description = "Record at most so many broadcasts at the same time.";
      };

      environmentFile = mkOption {
        type = types.nullOr absolutePath;
        default = null;
        example = "/run/secrets/casfs.env";
        description = ''
          Settings that are secret, such as `CASFS_AUTO_ARCHIVE_RELAY_URL` with a token in it.
          Must not be in the Nix store.
        '';
      };

      credentials = mkOption {
        type = types.attrsOf absolutePath;
        default = { };
        example = { directory-token = "/run/secrets/directory-token"; };
        description = ''
          Files that the service gets as systemd's credentials, by name; for example for
          `settings.auto-archive.directory-token-file = "directory-token"`.
        '';
      };

      memoryMax = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "8G";
        description = "The most memory of all recorders together (systemd's MemoryMax).";
      };

      logLevel = mkOption {
        type = types.enum [ "normal" "verbose" "debug" ];
        default = "normal";
        description = "How much is logged.";
      };

      extraArgs = mkOption {
        type = types.listOf (types.strMatching "[^[:space:]%$\"'\\;]+");
        default = [ ];
        description = "Further flags of `casfs auto-archive`; they win over `settings`.";
      };
    };

    verify = {
      enable = mkEnableOption "verifying the archive regularly";

      onCalendar = mkOption {
        type = types.str;
        default = "03:00";
        description = "When (systemd.time(7)).";
      };

      randomizedDelay = mkOption {
        type = types.str;
        default = "30min";
        description = "At most so much later.";
      };

      maxDuration = mkOption {
        type = duration;
        default = "2h";
        description = "How long a run lasts at most; the next one goes on there.";
      };

      maxAge = mkOption {
        type = duration;
        default = "30d";
        description = "What was found sound within this time is not read again.";
      };
    };

    mount = {
      enable = mkEnableOption "showing the archive as a filesystem";

      path = mkOption {
        type = absolutePath;
        default = "/run/casfs";
        description = "Where. The directory is made, and belongs to the user of the archive.";
      };

      allowOther = mkOption {
        type = types.bool;
        default = true;
        description = "Let other users read it, too.";
      };
    };
  };

  config = mkIf enabled (mkMerge [
    {
      assertions = [
        {
          assertion =
            !(isWithin cfg.casRoot cfg.manifestRoot) && !(isWithin cfg.manifestRoot cfg.casRoot);
          message = "services.casfs: neither of casRoot and manifestRoot may lie within the other";
        }
        {
          assertion = lib.all isPlain (roots ++ cfg.requireMountPoints ++ [ cfg.mount.path ]);
          message = "services.casfs: paths must not hold . or ..";
        }
        {
          assertion = !(lib.any (lib.hasPrefix "/home/") roots);
          message = "services.casfs: the roots cannot lie in /home, which services do not see";
        }
      ];

      services.casfs.settings = {
        cas-root = cfg.casRoot;
        manifest-root = cfg.manifestRoot;
      };

      # Where casfs looks by itself: `casfs status` and `casfs ls` need no options on this machine.
      environment.etc."casfs/config.toml".source = generated;
      environment.systemPackages = [ cfg.package ];

      users.users = optionalAttrs (cfg.user == "casfs") {
        casfs = {
          isSystemUser = true;
          group = cfg.group;
          description = "The archive of live TV";
          home = "/var/lib/casfs";
        };
      };
      users.groups = optionalAttrs (cfg.group == "casfs") { casfs = { }; };
    }

    (mkIf cfg.archive.enable {
      assertions = [
        {
          assertion =
            let given = cfg.settings.auto-archive; in
            (given.directory or [ ]) ++ (given.announced-by or [ ]) ++ (given.broadcast or [ ])
              != [ ];
          message = ''
            services.casfs.archive: nothing says what to record; set directoryUrl, or broadcasts
            with relayUrl, or settings.auto-archive.announced-by'';
        }
        {
          assertion = cfg.archive.broadcasts == [ ] || cfg.archive.relayUrl != null
            || cfg.archive.environmentFile != null;
          message = "services.casfs.archive: broadcasts need a relayUrl";
        }
      ];
      warnings = map
        (option: ''
          services.casfs.archive.${option} holds a query, perhaps a token: everyone can read it in
          the Nix store. Put it into environmentFile.'')
        (lib.filter
          (option: cfg.archive.${option} != null && lib.hasInfix "?" cfg.archive.${option})
          [ "directoryUrl" "relayUrl" ]);

      services.casfs.settings.auto-archive = {
        poll-interval = cfg.archive.pollInterval;
        max-workers = cfg.archive.maxWorkers;
        log-format = mkDefault "json";
      } // optionalAttrs (cfg.archive.directoryUrl != null) {
        directory = [ cfg.archive.directoryUrl ];
      } // optionalAttrs (cfg.archive.relayUrl != null) {
        relay-url = cfg.archive.relayUrl;
      } // optionalAttrs (cfg.archive.broadcasts != [ ]) {
        broadcast = cfg.archive.broadcasts;
      } // optionalAttrs (cfg.archive.include != [ ]) {
        inherit (cfg.archive) include;
      } // optionalAttrs (cfg.archive.exclude != [ ]) {
        inherit (cfg.archive) exclude;
      };

      systemd.services.casfs-archive = {
        description = "casfs: record what is on air";
        inherit wantedBy;
        wants = [ "network-online.target" ];
        after = [ "network-online.target" "time-sync.target" ];
        unitConfig = mountsFor // { StartLimitIntervalSec = 0; };
        # Each recording has a gap while this is down: as short as can be.
        stopIfChanged = false;
        reloadTriggers = [ generated ];
        restartTriggers = roots;
        serviceConfig = sandbox // {
          Type = "notify";
          NotifyAccess = "main";
          User = cfg.user;
          Group = cfg.group;
          # The roots' directories are made here, not by tmpfiles: only now is their disk mounted.
          ExecStartPre = optional (elsewhere != [ ])
            "+${installDirectories} ${lib.concatStringsSep " " elsewhere}"
          ++ [ "${casfs} --config ${configFile} init --first-run --state-dir %S/casfs-state" ];
          ExecStart = lib.concatStringsSep " " (
            [ casfs ]
            ++ optional (cfg.archive.logLevel == "verbose") "-v"
            ++ optional (cfg.archive.logLevel == "debug") "-vv"
            ++ [ "--config ${configFile} auto-archive" ]
            ++ cfg.archive.extraArgs
          );
          ExecReload = [
            "${casfs} config check ${configFile}"
            "${pkgs.coreutils}/bin/kill -HUP $MAINPID"
          ];
          # After whatever happens, also wrong settings: a secret or a disk may come later.
          Restart = "always";
          RestartSec = 5;
          WatchdogSec = 60;
          # Not "mixed": should the supervisor be killed, its recorders would be, too; so they end in
          # good order.
          KillMode = "control-group";
          TimeoutStopSec = 90;
          OOMPolicy = "continue";
          StateDirectory = "casfs-state" + lib.optionalString (elsewhere != roots) " casfs";
          StateDirectoryMode = "0755";
          RestrictAddressFamilies = [ "AF_INET" "AF_INET6" "AF_NETLINK" "AF_UNIX" ];
          # It asks the kernel whether the clock is synchronised, which ProtectClock forbids; to set
          # it takes a capability, of which there is none.
          SystemCallFilter = [
            "@system-service"
            "~@privileged @resources"
            "adjtimex clock_adjtime"
          ];
        } // optionalAttrs (elsewhere != [ ]) {
          # "-": at the very first start they are made only now.
          ReadWritePaths = map (root: "-${root}") elsewhere;
        } // optionalAttrs (cfg.archive.environmentFile != null) {
          EnvironmentFile = cfg.archive.environmentFile;
        } // optionalAttrs (cfg.archive.credentials != { }) {
          LoadCredential =
            lib.mapAttrsToList (name: path: "${name}:${path}") cfg.archive.credentials;
        } // optionalAttrs (cfg.archive.memoryMax != null) {
          MemoryMax = cfg.archive.memoryMax;
        };
      };
    })

    (mkIf cfg.verify.enable {
      systemd.services.casfs-verify = {
        description = "casfs: verify the archive";
        unitConfig = mountsFor;
        serviceConfig = sandbox // {
          Type = "oneshot";
          User = cfg.user;
          Group = cfg.group;
          ExecStart = lib.concatStringsSep " " [
            "${casfs} --config ${configFile} verify --from-disk"
            "--max-age ${cfg.verify.maxAge} --max-duration ${cfg.verify.maxDuration}"
            "--state-dir %S/casfs-verify --report %S/casfs-verify/report.json"
          ];
          # One of its own: the archive's would let it write there.
          StateDirectory = "casfs-verify";
          StateDirectoryMode = "0755";
          ReadOnlyPaths = map (root: "-${root}") roots;
          ProtectClock = true;
          PrivateNetwork = true;
          IPAddressDeny = "any";
          RestrictAddressFamilies = "none";
          SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
          CPUSchedulingPolicy = "idle";
          IOSchedulingClass = "idle";
          Nice = 19;
        };
      };
      systemd.timers.casfs-verify = {
        description = "casfs: verify the archive regularly";
        wantedBy = [ "timers.target" ];
        timerConfig = {
          OnCalendar = cfg.verify.onCalendar;
          RandomizedDelaySec = cfg.verify.randomizedDelay;
          Persistent = true;
        };
      };
    })

    (mkIf cfg.mount.enable {
      programs.fuse = {
        userAllowOther = mkIf cfg.mount.allowOther true;
      } // optionalAttrs (options.programs.fuse ? enable) { enable = true; };

      systemd.services.casfs-mount = {
        description = "casfs: the archive as a filesystem";
        inherit wantedBy;
        after = [ "casfs-archive.service" ];
        path = [ pkgs.fuse3 ];
        unitConfig = mountsFor // { StartLimitIntervalSec = 0; };
        # It mounts by a capability, not by the setuid fusermount3: so it can be locked in. But
        # whatever gives it a mount namespace of its own (ProtectSystem, PrivateTmp, ...) would leave
        # it running and ready, with a mount that nobody sees.
        serviceConfig = restrictions // {
          Type = "notify";
          NotifyAccess = "main";
          User = cfg.user;
          Group = cfg.group;
          AmbientCapabilities = "CAP_SYS_ADMIN";
          CapabilityBoundingSet = "CAP_SYS_ADMIN";
          ExecStartPre = "-+${installDirectories} ${cfg.mount.path}";
          ExecStart = "${casfs} --config ${configFile} mount "
            + lib.optionalString cfg.mount.allowOther "--allow-other " + cfg.mount.path;
          ExecStopPost = "-+${unmount}";
          # Not after `umount`; not where the mount point cannot be used (exit code 2).
          Restart = "on-failure";
          RestartPreventExitStatus = 2;
          RestartSec = 5;
          WatchdogSec = 60;
          DevicePolicy = "closed";
          DeviceAllow = "/dev/fuse rw";
          IPAddressDeny = "any";
          ProtectClock = true;
          RestrictAddressFamilies = "AF_UNIX";
          SystemCallFilter = [ "@system-service @mount" "~@resources" "setrlimit prlimit64" ];
        };
      };
    })
  ]);
}
