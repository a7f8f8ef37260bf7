"""RASR's configuration files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from seqtrain.errors import ConfigError
from seqtrain.lexicon.rasr import Configuration


def read(folder: Path, text: str, **variables: str) -> Configuration:
    path = folder / "a.config"
    path.write_text(text)
    return Configuration(path, variables=variables)


def test_sections_wildcards_and_comments(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
# a comment
top = 1
[*]
loop = 3.0   # another
b.loop = 4
[a.tdp]
*.loop = 0.7
silence.loop = 0.1
name = x#y
nothing =
[ a . tdp . entry-m1 ]
loop=infinity
[*.tdp]
silence.skip = 9
""",
    )
    assert config.get("top") == "1"
    assert config.get("a.top") is None
    tdp = config.select("a").select("tdp")
    assert [tdp.number(f"{state}.loop", 0.0) for state in ("state-0", "silence", "entry-m1")] == [
        0.7,
        0.1,
        math.inf,
    ]
    assert config.select("a.tdp").number("silence.skip", 0.0) == 9.0
    assert config.number("elsewhere.loop", 0.0) == 3.0
    assert config.number("elsewhere.b.loop", 0.0) == 4.0
    assert tdp.text("name") == "x#y"
    assert tdp.get("nothing") is None
    assert tdp.number("silence.exit", 5.5) == 5.5
    assert tdp.name("silence.loop") == "a.tdp.silence.loop"


def test_the_most_specific_line_counts_and_then_the_last(tmp_path: Path) -> None:
    config = read(
        tmp_path, "a.*.c = 1\n*.b.c = 2\na.b.c = 3\n*.c = 4\n*.d = 5\n*.d = 6\na.*.e = 7\n*.b.e = 8\n"
    )
    assert (config.get("a.b.c"), config.get("a.x.c"), config.get("x.y.b.c"), config.get("c")) == (
        "3",
        "1",
        "2",
        "4",
    )
    assert (config.get("d"), config.get("a.b.e")) == ("6", "8")


def test_references(tmp_path: Path) -> None:
    text = """[*]
SETUP = /data
[a]
SETUP = /mine
file = $(SETUP)/$(part).xml
part = x
[b]
n = y
c.file = $(SETUP)/$(n)
"""
    config = read(tmp_path, text)
    assert config.text("a.file") == "/mine/x.xml"
    assert config.select("a").text("file") == "/mine/x.xml"
    assert config.select("b.c").file("file") == Path("/data/y")
    other = read(tmp_path, text, SETUP="here")
    assert other.select("a").file("file") == tmp_path / "here" / "x.xml"


def test_the_set_up_is_the_folder_unless_defined(tmp_path: Path) -> None:
    config = read(tmp_path, "file = $(SETUP)/x.xml\nlost = $(NOWHERE)\nx = $(y)\ny = a$(x)\n")
    assert config.file("file") == tmp_path / "x.xml"
    with pytest.raises(
        ConfigError, match=r"a\.config, line 2: \$\(NOWHERE\) has no value; define it in the file, or"
    ):
        config.get("lost")
    with pytest.raises(ConfigError, match=r"line 3: a reference to itself: x → y → x"):
        config.get("x")


def test_includes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.config").write_text("[z]\nx = 2\ny = 2\ninclude c.config\n")
    (tmp_path / "sub" / "c.config").write_text("[*]\ndeep = 3\n")
    config = read(tmp_path, "[z]\nx = 1\ninclude sub/b.config\ny = 3\ninclude = 4\n")
    assert [config.get(name) for name in ("z.x", "z.y", "any.deep", "z.include")] == ["2", "3", "3", "4"]
    (tmp_path / "sub" / "c.config").write_text("\ninclude ../a.config\n")
    with pytest.raises(
        ConfigError, match=r"c\.config, line 2: includes '\.\./a\.config', of which it is a part"
    ):
        read(tmp_path, "include sub/b.config\n")
    with pytest.raises(ConfigError, match=r"configuration .*missing\.config can't be read"):
        read(tmp_path, "include missing.config\n")


def test_values_of_the_wrong_kind(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        "[p]\nflag = perhaps\nnumber = x\ncount = 1.5\nhigh = 9\nnan = nan\nkind = c\nyes = ON\nno = 0\n",
    ).select("p")
    assert (config.flag("yes", False), config.flag("no", True), config.flag("absent", True)) == (
        True,
        False,
        True,
    )
    assert config.integer("high", 0, least=9) == 9
    assert config.integer("absent", 7, least=0) == 7
    assert config.choice("kind", ("b", "c")) == "c"
    for attempt, message in (
        (lambda: config.flag("flag", False), "p.flag is 'perhaps'; it must be yes or no"),
        (lambda: config.number("number", 0.0), "p.number is 'x'; it must be a number or infinity"),
        (lambda: config.number("nan", 0.0), "p.nan is 'nan'; it must be a number"),
        (lambda: config.integer("count", 0, least=0), "p.count is '1.5'; it must be a whole number"),
        (lambda: config.integer("high", 0, least=1, most=8), "p.high is 9; it must be in 1…8"),
        (lambda: config.integer("no", 0, least=1), "p.no is 0; it must be at least 1"),
        (lambda: config.choice("kind", ("a", "b")), "p.kind is 'c'; it must be one of a, b"),
        (lambda: config.text("absent"), "has no value of p.absent"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            attempt()
        assert caught.value.key == message.partition(" is ")[0].rpartition(" ")[2]


def test_malformed_lines(tmp_path: Path) -> None:
    for text, message in (
        ("\n[a", r"line 2: a section must end in \], found '\[a'"),
        ("word", "line 1: expected `name = value`, found 'word'"),
        (" = 3", "line 1: expected `name = value`"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(tmp_path, text)
    with pytest.raises(ConfigError, match="can't be read"):
        Configuration(tmp_path / "missing.config")
    (tmp_path / "b.config").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="can't be read"):
        Configuration(tmp_path / "b.config")
