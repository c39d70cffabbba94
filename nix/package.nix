# casfs as a Python application. Its tests want a relay, FUSE and loopback: tools/test runs them.
{ lib, python3Packages, fuse3 }:

let
  inherit ((lib.importTOML ../pyproject.toml).project) version description;
in
python3Packages.buildPythonApplication {
  pname = "casfs";
  inherit version;
  pyproject = true;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../casfs ../ingest ../pyproject.toml ../README.md ../LICENSE ];
  };

  build-system = [ python3Packages.setuptools ];

  dependencies = with python3Packages; [
    aioquic
    blake3
    click
    cryptography
    httpx
    msgspec
    prometheus-client
    pyfuse3
    rich
    sqlite-utils
    trio
  ];

  # Last: on NixOS the setuid fusermount3 in /run/wrappers goes first, where a user mounts by hand.
  makeWrapperArgs = [ "--suffix" "PATH" ":" (lib.makeBinPath [ fuse3 ]) ];

  doCheck = false;
  pythonImportsCheck = [ "casfs" "ingest" ];

  meta = {
    inherit description;
    license = lib.licenses.mit;
    mainProgram = "casfs";
    platforms = lib.platforms.linux;
  };
}
