"""Where a server may listen."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from seqtrain.errors import ConfigError
from sprint_bridge.address import resolve_address
from sprint_bridge.server import AlignerServer


def test_by_default_a_socket_in_a_private_directory() -> None:
    with AlignerServer() as server:
        path = Path(server.target.removeprefix("unix:"))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert not path.parent.exists()


def test_a_socket_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with AlignerServer(listen=f"unix:{folder}/a.sock"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "a.sock").stat().st_mode) & 0o077 == 0
    assert not (folder / "a.sock").exists()


def test_directories_that_others_write_to_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(ConfigError, match=f"others may write to {folder}") as caught:
        resolve_address(f"unix:{folder}/a.sock")
    assert caught.value.key == "listen"


def test_a_socket_left_behind_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with (
        AlignerServer(listen=f"unix:{path}"),
        pytest.raises(ConfigError, match=f"another server is listening on {path}"),
    ):
        AlignerServer(listen=f"unix:{path}")
    path.write_text("precious")
    with pytest.raises(ConfigError, match="exists and isn't a socket"):
        AlignerServer(listen=f"unix:{path}")
    assert path.read_text() == "precious"


def test_tcp_without_tls_on_this_host_and_where_it_is_asked_for() -> None:
    with AlignerServer(listen="127.0.0.1:0", insecure_loopback=True) as server:
        port = server.target.removeprefix("127.0.0.1:")
        assert int(port) > 0
        with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1:{port}"):
            AlignerServer(listen=f"127.0.0.1:{port}", insecure_loopback=True)
    for listen in ("localhost:1", "[::1]:1", "127.0.0.1:1"):
        assert resolve_address(listen, insecure_loopback=True).target == listen
        with pytest.raises(ConfigError, match="a loopback port may go without by insecure_loopback"):
            resolve_address(listen)
    for listen in ("0.0.0.0:4000", "[::]:4000", "192.168.1.2:4000", "aligner.example.org:4000"):
        assert resolve_address(listen, tls=True).target == listen
        with pytest.raises(ConfigError, match=r"TCP needs TLS .*; use that, or a unix socket$") as caught:
            resolve_address(listen, insecure_loopback=True)
        assert caught.value.key == "listen"


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("nonsense", "must be unix:/path or host:port"),
        ("127.0.0.1:", "must be unix:/path or host:port"),
        ("127.0.0.1:70000", "must be unix:/path or host:port"),
        ("unix:relative.sock", "must be absolute"),
        ("unix:/" + 120 * "x", "at most 107 bytes, this one has 121"),
    ],
)
def test_malformed_addresses(listen: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_address(listen)
