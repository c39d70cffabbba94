"""systemd's units for casfs where there is no NixOS, made of what nix/module.nix says."""
