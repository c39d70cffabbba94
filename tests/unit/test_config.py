from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from casfs.config import Settings, load_settings
from casfs.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

NO_FLAGS: dict[str, object] = {"cas-root": None, "manifest-root": None, "index": None}


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """Return an environment without a configuration file."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "none")}


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_flags_win_over_environment_and_environment_over_file(
    tmp_path: Path, nowhere: dict[str, str]
) -> None:
    file = write(
        tmp_path / "c.toml", 'cas-root = "/file/c"\nmanifest-root = "/file/m"\nindex = "/file/i"'
    )
    environment = nowhere | {"CASFS_CAS_ROOT": "/env/c", "CASFS_MANIFEST_ROOT": "/env/m"}
    settings = load_settings(NO_FLAGS | {"cas-root": "/flag/c"}, environment, file)
    assert settings == Settings(cas_root="/flag/c", manifest_root="/env/m", index="/file/i")


def test_without_any_source_nothing_is_set(nowhere: dict[str, str]) -> None:
    assert load_settings(NO_FLAGS, nowhere).index is None


def test_the_users_file_is_found(tmp_path: Path) -> None:
    write(tmp_path / ".config" / "casfs" / "config.toml", 'cas-root = "/home/c"')
    assert load_settings(NO_FLAGS, {"HOME": str(tmp_path)}).cas_root == "/home/c"
    write(tmp_path / "xdg" / "casfs" / "config.toml", 'cas-root = "/xdg/c"')
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert load_settings(NO_FLAGS, environment).cas_root == "/xdg/c"


def test_the_environment_names_a_file(tmp_path: Path, nowhere: dict[str, str]) -> None:
    file = write(tmp_path / "c.toml", 'index = "/i"')
    assert load_settings(NO_FLAGS, nowhere | {"CASFS_CONFIG": file}).index == "/i"


@pytest.mark.parametrize(
    "text",
    ['cas-rot = "/c"', "cas-root = 5", "cas-root", 'cas_root = "/c"', "[cas-root]", "\0"],
)
def test_a_bad_file_is_refused_and_named(
    tmp_path: Path, nowhere: dict[str, str], text: str
) -> None:
    file = write(tmp_path / "c.toml", text)
    with pytest.raises(ConfigError, match=r"c\.toml is not valid"):
        load_settings(NO_FLAGS, nowhere, file)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path, nowhere: dict[str, str]) -> None:
    (tmp_path / "c.toml").write_bytes(b'index = "\xff"')
    with pytest.raises(ConfigError, match="is not valid"):
        load_settings(NO_FLAGS, nowhere, str(tmp_path / "c.toml"))


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path, nowhere: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(NO_FLAGS, nowhere, str(tmp_path / "missing.toml"))


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, nowhere: dict[str, str]) -> None:
    with pytest.raises(StorageError, match="failed reading"):
        load_settings(NO_FLAGS, nowhere, str(tmp_path))


def test_roots_that_nobody_names_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"CASFS_CAS_ROOT.*CASFS_MANIFEST_ROOT"):
        Settings().roots()
    with pytest.raises(ConfigError) as refusal:
        Settings(cas_root="/c").roots()
    assert "--cas-root" not in str(refusal.value)
    assert "--manifest-root" in str(refusal.value)


def test_roots_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    roots = Settings(cas_root="c", manifest_root="m").roots()
    assert (roots.cas, roots.manifests) == (str(tmp_path / "c"), str(tmp_path / "m"))
