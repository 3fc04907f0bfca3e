"""Settings come from layers, the strongest wins, and each value remembers where it came from."""

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import (
    Config,
    Layer,
    Search,
    cores,
    debug_wanted,
    find_datastore,
    load,
    merge,
    parameter_variables,
    terminal,
    user_name,
)
from engine.errors import ConfigError
from engine.settings import SETTINGS

VALUES: Mapping[str, st.SearchStrategy[object]] = {
    "datastore": st.sampled_from(["/d1", "/d2", "s3://bucket/prefix"]),
    "metadata": st.sampled_from(["/m1", "/m2"]),
    "max_workers": st.integers(1, 10_000),
    "on_failure": st.sampled_from(["finish", "cancel"]),
    "isolation": st.sampled_from(["fork", "spawn"]),
    "max_num_splits_guard": st.integers(1, 10**9),
    "durability": st.sampled_from(["process", "power"]),
    "verify": st.sampled_from(["changed", "always"]),
    "package_suffixes": st.sampled_from([".py", ".py,.sql", "none"]),
    "cache_dir": st.sampled_from(["/c1", "/c2"]),
    "cache_max_mib": st.integers(1, 10**6),
    "user": st.sampled_from(["ada", "bob"]),
    "color": st.sampled_from(["auto", "always", "never"]),
    "log_level": st.sampled_from(["debug", "info", "warning", "error"]),
    "s3_endpoint_url": st.sampled_from(["http://127.0.0.1:8333", "https://s3.example.org"]),
    "s3_region": st.sampled_from(["eu-west-1", "us-east-1"]),
    "s3_profile": st.sampled_from(["work", "home"]),
    "s3_addressing": st.sampled_from(["auto", "virtual", "path"]),
    "s3_ca_bundle": st.sampled_from(["/c1", "/c2"]),
    "s3_proxy": st.sampled_from(["http://127.0.0.1:3128"]),
    "s3_encryption": st.sampled_from(["none", "AES256", "aws:kms"]),
    "s3_kms_key": st.sampled_from(["alias/a", "arn:aws:kms:eu-west-1:1:key/2"]),
    "s3_requester_pays": st.booleans(),
    "s3_root": st.sampled_from(["s3://bucket/data"]),
    "s3_client": st.sampled_from(["auto", "obstore", "aioboto3"]),
    "s3_concurrency": st.integers(1, 1000),
    "s3_memory_mib": st.integers(16, 10_000),
    "s3_deadline_s": st.integers(1, 10_000),
    "batch_queue": st.sampled_from(["small", "large"]),
    "batch_image": st.sampled_from(["python:3.11", "registry.example.org/team/image:4"]),
    "batch_job_role": st.sampled_from(["arn:aws:iam::1:role/job"]),
    "batch_execution_role": st.sampled_from(["arn:aws:iam::1:role/pull"]),
    "batch_endpoint_url": st.sampled_from(["http://127.0.0.1:5000"]),
    "batch_region": st.sampled_from(["eu-west-1", "us-east-1"]),
    "batch_array_max": st.integers(1, 10_000),
    "batch_on_demand_queue": st.just("steady"),
    "batch_reclaims": st.integers(1, 10),
    "batch_waiting_s": st.integers(1, 10_000),
}
layers = st.lists(
    st.fixed_dictionaries({}, optional=dict(VALUES)).map(dict), min_size=1, max_size=6
)


@pytest.fixture
def search(tmp_path: Path) -> Search:
    (tmp_path / "work").mkdir()
    return Search(cwd=tmp_path / "work", system_file=tmp_path / "etc" / "config.toml")


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "USER": "ada", **more}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@settings(deadline=None)
@given(layers)
def test_the_strongest_layer_that_has_a_key_gives_its_value(
    values: list[dict[str, object]],
) -> None:
    config = merge([Layer(f"layer {i}", v) for i, v in enumerate(values)])

    default = Config()
    for key in SETTINGS:
        having = [i for i, layer in enumerate(values) if key in layer]
        if having:
            assert getattr(config, key) == values[having[0]][key]
            assert config.source(key) == f"layer {having[0]}"
        else:
            assert getattr(config, key) == getattr(default, key)
            assert config.source(key) == "default"


@settings(deadline=None)
@given(layers)
def test_a_layer_below_changes_nothing_that_is_set_above(values: list[dict[str, object]]) -> None:
    unset = dict.fromkeys(("s3_endpoint_url", "s3_proxy", "batch_endpoint_url"), "http://m")
    given = {k: getattr(Config(), k) for k in SETTINGS}
    all_set = Layer("top", {k: unset.get(k, "/m") if v is None else v for k, v in given.items()})

    alone, above = merge([all_set]), merge([all_set, *(Layer("below", v) for v in values)])

    assert alone == above
    assert set(above.sources) == set(SETTINGS)


def test_every_key_has_a_strategy_here() -> None:
    assert set(VALUES) == set(SETTINGS)


def test_flag_beats_variable_beats_project_beats_user_beats_system(
    tmp_path: Path, search: Search
) -> None:
    write(search.system_file, "max_workers = 1\nisolation = 'spawn'\nverify = 'always'\n")
    write(tmp_path / "xdg/aflow/config.toml", "max_workers = 2\nisolation = 'fork'\nuser = 'u'\n")
    write(tmp_path / "aflow.toml", "max_workers = 3\nuser = 'p'\non_failure = 'cancel'\n")

    config = load(
        {"max_workers": 5, "isolation": None},
        environ=environ(tmp_path, AFLOW_MAX_WORKERS="4", AFLOW_USER="v"),
        search=search,
    )

    assert {key: (getattr(config, key), config.source(key)) for key in config.sources} == {
        "max_workers": (5, "--max-workers"),
        "user": ("v", "AFLOW_USER"),
        "on_failure": ("cancel", str(tmp_path / "aflow.toml")),
        "isolation": ("fork", str(tmp_path / "xdg/aflow/config.toml")),
        "verify": ("always", str(search.system_file)),
    }
    assert config.username == "v"
    assert config.namespace == "user:v"


def test_without_files_and_variables_everything_is_default(tmp_path: Path, search: Search) -> None:
    config = load(environ=environ(tmp_path), search=search)

    assert dict(config.sources) == {}
    assert config.max_workers == cores() == len(os.sched_getaffinity(0))
    assert config.datastore == str(search.cwd / ".aflow")
    assert config.user == "ada"


def test_the_nearest_project_file_is_the_one(tmp_path: Path, search: Search) -> None:
    write(tmp_path / "aflow.toml", "max_workers = 3\n")
    write(search.cwd / "pyproject.toml", "[tool.aflow]\nmax_workers = 7\n")

    assert load(environ=environ(tmp_path), search=search).max_workers == 7


def test_a_pyproject_without_our_table_is_passed_over(tmp_path: Path, search: Search) -> None:
    write(tmp_path / "aflow.toml", "max_workers = 3\n")
    write(search.cwd / "pyproject.toml", "[project]\nname = 'aflow-user'\n")

    assert load(environ=environ(tmp_path), search=search).max_workers == 3


def test_aflow_toml_goes_before_the_pyproject_beside_it(tmp_path: Path, search: Search) -> None:
    write(search.cwd / "aflow.toml", "max_workers = 3\n")
    write(search.cwd / "pyproject.toml", "[tool.aflow]\nmax_workers = 7\n")

    assert load(environ=environ(tmp_path), search=search).max_workers == 3


def test_a_relative_path_is_against_what_names_it(tmp_path: Path, search: Search) -> None:
    write(tmp_path / "aflow.toml", "datastore = 'data'\nmetadata = '~/meta.db'\n")

    config = load(environ=environ(tmp_path), search=search)
    flagged = load({"datastore": "data"}, environ=environ(tmp_path), search=search)

    assert config.datastore == str(tmp_path / "data")
    assert config.metadata == str(Path("~/meta.db").expanduser())
    assert flagged.datastore == os.path.abspath("data")
    assert load({"datastore": "s3://b/p"}, environ={}, search=search).datastore == "s3://b/p"


def test_metaflow_s_word_for_the_default_is_understood(tmp_path: Path, search: Search) -> None:
    config = load({"datastore": "local", "metadata": "local"}, environ={}, search=search)

    assert (config.datastore, config.metadata) == (str(search.cwd / ".aflow"), None)
    assert dict(config.sources) == {}
    assert load({"datastore": "./local"}, environ={}, search=search).datastore.endswith("/local")


def test_the_datastore_is_found_above(tmp_path: Path) -> None:
    (tmp_path / ".aflow").mkdir()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)

    assert find_datastore(deep) == str(tmp_path / ".aflow")


def test_a_chosen_profile_beats_every_plain_value_and_no_variable(
    tmp_path: Path, search: Search
) -> None:
    user_file = write(
        tmp_path / "xdg/aflow/config.toml",
        "max_workers = 2\n[profile.prod]\nmax_workers = 20\nuser = 'deploy'\n",
    )
    write(tmp_path / "aflow.toml", "max_workers = 3\n[profile.test]\nmax_workers = 1\n")

    prod = load(environ=environ(tmp_path, AFLOW_PROFILE="prod"), search=search)
    plain = load(environ=environ(tmp_path), search=search)
    both = load(environ=environ(tmp_path, AFLOW_PROFILE="prod", AFLOW_USER="me"), search=search)

    assert (prod.max_workers, prod.source("max_workers")) == (20, f"{user_file} [profile.prod]")
    assert prod.user == "deploy"
    assert plain.max_workers == 3
    assert both.user == "me"


def test_a_profile_that_no_file_has_is_an_error_with_the_one_meant(
    tmp_path: Path, search: Search
) -> None:
    write(tmp_path / "aflow.toml", "[profile.prod]\nmax_workers = 1\n")

    with pytest.raises(ConfigError, match="no profile 'prdo'") as caught:
        load(environ=environ(tmp_path, AFLOW_PROFILE="prdo"), search=search)
    assert caught.value.hint == "did you mean 'prod'?"
    with pytest.raises(ConfigError) as caught:
        load(environ=environ(tmp_path, AFLOW_PROFILE="zzz"), search=search)
    assert caught.value.hint == "profiles: prod"


def test_a_slip_in_a_profile_that_is_not_chosen_is_an_error_too(
    tmp_path: Path, search: Search
) -> None:
    write(tmp_path / "aflow.toml", "[profile.prod]\nmax_worker = 1\n")

    with pytest.raises(ConfigError, match=r"'max_worker' \(.*\[profile.prod\]\)"):
        load(environ=environ(tmp_path), search=search)


def test_one_file_alone_can_be_named(tmp_path: Path, search: Search) -> None:
    write(tmp_path / "aflow.toml", "max_workers = 3\n")
    other = write(tmp_path / "other.toml", "user = 'o'\n")
    project = write(tmp_path / "else" / "pyproject.toml", "[tool.aflow]\nuser = 'p'\n")

    by_variable = load(environ=environ(tmp_path, AFLOW_CONFIG_FILE=str(other)), search=search)
    by_option = load(
        environ=environ(tmp_path, AFLOW_CONFIG_FILE=str(other)),
        search=Search(cwd=search.cwd, config_file=str(project)),
    )

    assert (by_variable.user, by_variable.source("max_workers")) == ("o", "default")
    assert by_option.user == "p"
    with pytest.raises(ConfigError, match="no configuration file"):
        load(environ={}, search=Search(cwd=search.cwd, config_file="nope.toml"))


@pytest.mark.parametrize("how", ["option", "variable"])
def test_no_file_is_read_when_none_is_wanted(tmp_path: Path, search: Search, how: str) -> None:
    write(tmp_path / "aflow.toml", "nonsense = 1\n")
    variables = {"AFLOW_NO_CONFIG": "1"} if how == "variable" else {}

    config = load(
        environ=environ(tmp_path, **variables),
        search=Search(cwd=search.cwd, no_config=how == "option", system_file=search.system_file),
    )

    assert dict(config.sources) == {}


def test_an_unknown_key_names_its_file_and_the_key_meant(tmp_path: Path, search: Search) -> None:
    path = write(tmp_path / "aflow.toml", "max_worker = 3\n")

    with pytest.raises(ConfigError) as caught:
        load(environ=environ(tmp_path), search=search)
    assert caught.value.message == f"unknown key 'max_worker' ({path})"
    assert caught.value.hint == "did you mean 'max_workers'?"
    assert caught.value.exit_code == 3


def test_a_key_that_is_like_no_other_is_told_where_to_look() -> None:
    with pytest.raises(ConfigError) as caught:
        merge([Layer("here", {"qqq": 1})])
    assert caught.value.hint == "`aflow config show` lists every key"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_workers = 0", "max_workers = 0 is not a whole number of at least 1"),
        ("max_workers = true", "max_workers = True is not a whole number"),
        ("max_workers = 1.5", "max_workers = 1.5 is not"),
        ("max_workers = 'many'", "max_workers = 'many' is not"),
        ("datastore = 7", "datastore = 7 is not a text that is not empty"),
        ("datastore = ''", "datastore = '' is not"),
        ('datastore = "a\\u0000b"', "is not a text"),
        ("package_suffixes = ['.py', 3]", r"is not a list of texts"),
        ("package_suffixes = '.py,'", r"is not a list of texts"),
        ("isolation = 'thread'", "isolation = 'thread' is not one of fork, spawn"),
        ("profile = 3", "profile is not a table"),
        ("profile.a = 3", "profile is not a table"),
        ("max_workers =", "is not TOML"),
    ],
)
def test_a_value_that_does_not_fit_names_its_key_and_file(
    tmp_path: Path, search: Search, text: str, problem: str
) -> None:
    path = write(tmp_path / "aflow.toml", text + "\n")

    with pytest.raises(ConfigError) as caught:
        load(environ=environ(tmp_path), search=search)
    assert problem in caught.value.message
    assert str(path) in caught.value.message


def test_a_file_that_is_not_utf8_or_cannot_be_read_is_named(tmp_path: Path, search: Search) -> None:
    path = tmp_path / "aflow.toml"
    path.write_bytes(b"user = '\xff'\n")

    with pytest.raises(ConfigError, match="is not TOML"):
        load(environ=environ(tmp_path), search=search)
    project = tmp_path / "work" / "pyproject.toml"
    project.write_text("aflow")
    project.chmod(0)
    if not os.access(project, os.R_OK):  # root may read anything
        with pytest.raises(ConfigError, match="cannot read"):
            load(environ=environ(tmp_path), search=search)


def test_a_variable_that_does_not_fit_is_named(tmp_path: Path, search: Search) -> None:
    with pytest.raises(ConfigError, match=r"'x' is not a whole number.*\(AFLOW_MAX_WORKERS\)"):
        load(environ=environ(tmp_path, AFLOW_MAX_WORKERS="x"), search=search)


def test_a_slip_in_a_variable_is_an_error_and_a_foreign_variable_is_not(
    tmp_path: Path, search: Search
) -> None:
    with pytest.raises(ConfigError, match="AFLOW_DATASTOR") as caught:
        load(environ=environ(tmp_path, AFLOW_DATASTOR="x"), search=search)
    assert caught.value.hint == "did you mean 'AFLOW_DATASTORE'?"

    assert load(environ=environ(tmp_path, AFLOW_CRASH_AT="7"), search=search).sources == {}


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"AFLOW_USER": "a", "SUDO_USER": "b", "USERNAME": "c", "USER": "d"}, "a"),
        ({"SUDO_USER": "b", "USERNAME": "c", "USER": "d"}, "b"),
        ({"USERNAME": "c", "USER": "d"}, "c"),
        ({"USER": "d"}, "d"),
        ({"SUDO_USER": "root", "USER": "d"}, "d"),
    ],
)
def test_the_user_is_told_from_the_same_variables_as_in_metaflow(
    variables: dict[str, str], name: str
) -> None:
    assert user_name(variables) == name


def test_without_variables_the_user_is_that_of_the_uid() -> None:
    assert user_name({}) == user_name({"USER": "root"}) == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize(
    ("variables", "color"),
    [
        ({}, "auto"),
        ({"NO_COLOR": "1"}, "never"),
        ({"NO_COLOR": ""}, "auto"),
        ({"FORCE_COLOR": "1"}, "always"),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, "never"),
        ({"TERM": "dumb"}, "never"),
        ({"CI": "true"}, "never"),
        ({"CI": "true", "FORCE_COLOR": "1"}, "always"),
        ({"NO_COLOR": "1", "AFLOW_COLOR": "always"}, "always"),
    ],
)
def test_colour_follows_everyones_variables_and_ours_first(
    tmp_path: Path, search: Search, variables: dict[str, str], color: str
) -> None:
    assert load(environ=environ(tmp_path, **variables), search=search).color == color


@pytest.mark.parametrize(
    ("color", "is_tty", "variables", "expected"),
    [
        ("auto", True, {}, (True, True)),
        ("auto", False, {}, (False, False)),
        ("always", False, {}, (True, False)),
        ("never", True, {}, (False, True)),
        ("auto", True, {"TERM": "dumb"}, (True, False)),
        ("auto", True, {"CI": "1"}, (True, False)),
    ],
)
def test_what_a_stream_can_show(
    color: str, is_tty: bool, variables: dict[str, str], expected: tuple[bool, bool]
) -> None:
    found = terminal(Config(color=color), is_tty=is_tty, environ=variables)

    assert (found.color, found.live) == expected


def test_a_copy_can_have_other_values() -> None:
    config = Config(max_workers=3).replace(max_workers=5, user=None)

    assert (config.max_workers, config.source("max_workers")) == (5, "argument")
    with pytest.raises(ConfigError):
        config.replace(max_workers=0)
    with pytest.raises(ConfigError):
        config.replace(nope=0)


def test_parameters_are_found_among_the_variables() -> None:
    assert parameter_variables({"AFLOW_PARAMETER_ALPHA": "1", "AFLOW_USER": "a"}) == {
        "AFLOW_PARAMETER_ALPHA": "1"
    }


def test_debug_is_on_when_the_variable_says_so() -> None:
    assert debug_wanted({"AFLOW_DEBUG": "1"})
    assert not debug_wanted({"AFLOW_DEBUG": "0"})
    assert not debug_wanted({})


def test_without_files_no_toml_parser_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from engine.config import load; load(); "
        "print([m for m in ('tomllib', 'asyncio', 'click', 'difflib') if m in sys.modules])"
    )
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "USER": "ada"}

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_settings_of_a_kind_go_to_another_process_as_variables(
    tmp_path: Path, search: Search
) -> None:
    write(
        tmp_path / "aflow.toml", "s3_region = 'eu-west-1'\ns3_requester_pays = true\nuser = 'u'\n"
    )
    config = load({"s3_concurrency": 7}, environ=environ(tmp_path), search=search)
    variables = config.variables("s3_")
    assert variables == {
        "AFLOW_S3_REGION": "eu-west-1",
        "AFLOW_S3_REQUESTER_PAYS": "True",
        "AFLOW_S3_CONCURRENCY": "7",
    }
    there = load(environ=variables, search=Search(cwd=search.cwd, no_config=True))
    assert {key: getattr(there, key) for key in SETTINGS if key.startswith("s3_")} == {
        key: getattr(config, key) for key in SETTINGS if key.startswith("s3_")
    }
