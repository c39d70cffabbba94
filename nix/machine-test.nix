# A NixOS test: a machine with casfs on it, booted in QEMU. What the units do under systemd is proved
# in more detail by tests/nix/test_systemd.py.
{ module }:

{
  name = "casfs";

  nodes.machine = {
    imports = [ module ];
    environment.etc."casfs/pinned.json".text = "[]";
    services.casfs = {
      archive.enable = true;
      archive.directoryUrl = "file:///etc/casfs/pinned.json";
      settings.auto-archive.time-sync-wait = "0s";
      verify.enable = true;
      mount.enable = true;
    };
  };

  testScript = ''
    machine.wait_for_unit("casfs-archive.service")
    machine.wait_for_unit("casfs-mount.service")
    machine.wait_for_unit("casfs-verify.timer")
    machine.succeed("casfs ls", "casfs status", "ls /run/casfs/broadcasts")
    machine.succeed("systemctl start casfs-verify.service")
    machine.succeed("systemctl stop casfs-mount casfs-archive")
    machine.fail("mountpoint -q /run/casfs")
  '';
}
