from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from casfs.cli.program import run
from casfs.config import Settings, load, load_settings
from casfs.config.entries import Entry, entries
from casfs.config.schema import Seconds
from casfs.config.secrets import read_secret
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


# The tables


TABLES = """
cas-root = "/c"

[auto-archive]
directory = ["https://tv.example/api/public-streams"]
max-workers = 7
poll-interval = "15s"
min-free = "5%"
field = {name = "title"}

[expire-when-short]
enable = true
keep-daily = ["18-23"]
"""


def test_tables_are_read_and_every_value_knows_where_it_stands(
    tmp_path: Path, nowhere: dict[str, str]
) -> None:
    file = write(tmp_path / "c.toml", TABLES)
    environment = nowhere | {"CASFS_AUTO_ARCHIVE_MAX_WORKERS": "8"}
    loaded = load({"auto-archive.grace": "2h"}, environment, file)
    auto = loaded.settings.auto_archive
    assert (auto.max_workers, auto.poll_interval) == (8, Seconds(15))
    assert auto.grace == Seconds(7200)
    assert auto.min_free.of(1000) == 50
    assert auto.field == {"name": "title"}
    assert loaded.settings.expire_when_short.keep_daily == ("18-23",)
    origins = {name: str(origin) for name, origin in loaded.origins.items()}
    assert origins["cas-root"] == f"file {file}:2"
    assert origins["auto-archive.poll-interval"] == f"file {file}:7"
    assert origins["auto-archive.max-workers"] == "environment CASFS_AUTO_ARCHIVE_MAX_WORKERS"
    assert origins["auto-archive.grace"] == "flag --grace"
    assert origins["auto-archive.metrics"] == "default"


def test_lists_and_pairs_can_stand_in_the_environment_and_in_flags(nowhere: dict[str, str]) -> None:
    environment = nowhere | {
        "CASFS_AUTO_ARCHIVE_INCLUDE": "news/*, tv",
        "CASFS_AUTO_ARCHIVE_FIELD": "name=title,relay=where",
        "CASFS_AUTO_ARCHIVE_TLS_INSECURE": "true",
    }
    auto = load_settings({"auto-archive.exclude": ("a,b", "c")}, environment).auto_archive
    assert (auto.include, auto.exclude) == (("news/*", "tv"), ("a,b", "c"))
    assert auto.field == {"name": "title", "relay": "where"}
    assert auto.tls_insecure


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("max-workers = 0", r"line 3: auto-archive\.max-workers: "),
        ("poll-interval = '5x'", r"line 3: auto-archive\.poll-interval: .* no duration"),
        ("poll-interval = 5", r"line 3: auto-archive\.poll-interval: a duration is a text"),
        ("include = 'a'", r"line 3: auto-archive\.include: "),
        ("include = ['a', 5]", r"line 3: auto-archive\.include\[1\]: "),
        ("field = {title = 'x'}", r"line 3: auto-archive\.field"),
        ("max-worker = 5", r"line 3: there is no setting .*, but auto-archive\.max-workers"),
        ("log-format = 'xml'", r"line 3: auto-archive\.log-format: "),
        ("= 5", r"line 3"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, nowhere: dict[str, str], line: str, problem: str
) -> None:
    file = write(tmp_path / "c.toml", f"\n[auto-archive]\n{line}\n")
    with pytest.raises(ConfigError, match=problem):
        load({}, nowhere, file)


def test_a_bad_flag_or_variable_is_named(nowhere: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="--min-free is not valid: 'x'"):
        load({"auto-archive.min-free": "x"}, nowhere)
    with pytest.raises(ConfigError, match="CASFS_AUTO_ARCHIVE_MAX_WORKERS is not valid"):
        load({}, nowhere | {"CASFS_AUTO_ARCHIVE_MAX_WORKERS": "many"})


@pytest.mark.parametrize("entry", entries(Settings), ids=lambda entry: entry.name)
def test_every_setting_is_explained(entry: Entry) -> None:
    assert entry.description.endswith(".")
    assert entry.kind


def test_secrets_come_from_files_and_credentials(tmp_path: Path) -> None:
    write(tmp_path / "token", " s3cret\n")
    assert read_secret(str(tmp_path / "token"), {}) == "s3cret"
    assert read_secret("token", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "s3cret"
    with pytest.raises(ConfigError, match="CREDENTIALS_DIRECTORY is not set"):
        read_secret("token", {})
    write(tmp_path / "bad", "s3cret\nother")
    for name in ("bad", "missing"):
        with pytest.raises(ConfigError) as refusal:
            read_secret(str(tmp_path / name), {})
        assert "s3cret" not in str(refusal.value)


def test_config_show_tells_values_and_origins_and_no_secret(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[auto-archive]\nrelay-url = "https://u:pw@relay.example/anon?jwt=s3cret"\n'
    monkeypatch.setenv("CASFS_CONFIG", write(tmp_path / "c.toml", text))
    assert run(["config", "show"]) == 0
    said = capfdbinary.readouterr().out.decode()
    assert 'relay-url = "https://relay.example/anon?..."' in said
    assert f"# file {tmp_path}/c.toml:2" in said
    assert "s3cret" not in said
    assert run(["config", "show", "--json"]) == 0
    assert (
        b'"max-workers":{"value":100,"origin":"default"}'.replace(
            b"max-workers", b"auto-archive.max-workers"
        )
        in capfdbinary.readouterr().out
    )


def test_config_check_says_yes_or_where_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "c.toml", TABLES)
    assert run(["config", "check", file]) == 0
    assert "is sound" in capfd.readouterr().out
    write(tmp_path / "c.toml", TABLES.replace("https:", "gopher:"))
    assert run(["config", "check", file]) == 2
    assert "auto-archive.directory: a directory's URL is" in capfd.readouterr().err
    write(tmp_path / "c.toml", '[auto-archive]\nmetrics = "127.0.0.1:99999"\n')
    assert run(["config", "check", file]) == 2
    assert f"{file}:2: auto-archive.metrics: " in capfd.readouterr().err
    write(tmp_path / "c.toml", TABLES.replace("= 7", "= 'seven'"))
    assert run(["config", "check", file]) == 2
    assert "line 6: auto-archive.max-workers" in capfd.readouterr().err
