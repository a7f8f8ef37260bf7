"""Who may call: TLS, clients' certificates, tokens, and what is said to those who may not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from seqtrain.aligner import AlignerClient, Credentials
from seqtrain.errors import AlignerError, AlignerUnavailableError, ArgumentError, ConfigError
from sprint_bridge.ping import ping
from sprint_bridge.security import Tls, read_tokens
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import serve

TOKEN = "correct-horse-battery-staple"


@dataclass(frozen=True)
class Files:
    """Certificates of a host, and of a client, by two authorities."""

    ca: Path
    certificate: Path
    key: Path
    client_ca: Path
    client_certificate: Path
    client_key: Path

    @property
    def tls(self) -> Tls:
        return Tls(self.certificate, self.key)

    @property
    def mutual(self) -> Tls:
        return Tls(self.certificate, self.key, self.client_ca)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("certificates")
    servers, clients = trustme.CA(), trustme.CA()
    found = Files(*(folder / name for name in Files.__dataclass_fields__))
    servers.cert_pem.write_to_path(str(found.ca))
    clients.cert_pem.write_to_path(str(found.client_ca))
    for certificate, chain, key in (
        (servers.issue_cert("localhost"), found.certificate, found.key),
        (clients.issue_cert("trainer"), found.client_certificate, found.client_key),
    ):
        certificate.cert_chain_pems[0].write_to_path(str(chain))
        certificate.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
    return found


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# callers\ntrainer {TOKEN}\nother another-secret-of-theirs\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def secured(files: Files, tokens: Path) -> Iterator[AlignerServer]:
    server = serve("localhost:0", tls=files.mutual, tokens=tokens)
    yield server
    server.stop()


def test_a_certificate_on_both_sides_and_a_token(secured: AlignerServer, files: Files) -> None:
    credentials = Credentials(files.ca, files.client_certificate, files.client_key, TOKEN)
    assert TOKEN not in repr(credentials)
    with AlignerClient(secured.target, timeout=10.0, credentials=credentials) as client:
        assert len(client.automata(["toy/1", "toy/2"])) == 2
        client.prefetch([["toy/3"]])
        assert client.automata(["toy/3"]).tags == ("toy/3",)
        assert client.inventory().labels


@pytest.mark.parametrize("token", [None, "wrong-horse-battery-staple"])
def test_without_a_known_token(secured: AlignerServer, files: Files, token: str | None) -> None:
    credentials = Credentials(files.ca, files.client_certificate, files.client_key, token)
    with AlignerClient(secured.target, timeout=10.0, credentials=credentials) as client:
        began = time.monotonic()
        with pytest.raises(
            AlignerError, match=r"no token, or none that this server knows .*doesn't accept this caller"
        ):
            client.automata(["toy/1"])
        with pytest.raises(AlignerError, match="UNAUTHENTICATED"):
            client.inventory()
        assert time.monotonic() - began < 5.0, "not retried"


def test_without_a_certificate_of_ones_own(secured: AlignerServer, files: Files) -> None:
    with (
        AlignerClient(secured.target, timeout=1.0, credentials=Credentials(files.ca, token=TOKEN)) as client,
        pytest.raises(AlignerUnavailableError, match="not reachable"),
    ):
        client.automata(["toy/1"])


def test_a_server_of_another_authority(files: Files) -> None:
    server = serve("localhost:0", tls=files.tls)
    with (
        AlignerClient(server.target, timeout=1.0, credentials=Credentials(files.client_ca)) as client,
        pytest.raises(AlignerUnavailableError, match=r"not reachable.*(certificate|CERTIFICATE|handshake)"),
    ):
        client.automata(["toy/1"])
    server.stop()


def test_a_client_without_tls(files: Files) -> None:
    server = serve("localhost:0", tls=files.tls)
    with AlignerClient(server.target, timeout=1.0) as client, pytest.raises(AlignerUnavailableError):
        client.automata(["toy/1"])
    server.stop()


def test_a_token_on_a_unix_socket(tmp_path: Path, tokens: Path) -> None:
    server = serve(f"unix:{tmp_path}/a.sock", tokens=tokens)
    with AlignerClient(server.target, timeout=5.0, credentials=Credentials(token=TOKEN)) as client:
        assert len(client.automata(["toy/1"])) == 1
    # Whoever watches over servers needs no token to ask for their health.
    assert ping(server.target, timeout=5.0)["status"] == "unreachable"
    assert ping(server.target, timeout=5.0, credentials=Credentials(token=TOKEN))["status"] == "serving"
    server.stop()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has none"),
        ("trainer short", "line 1 of .* must be `caller token`, the token of 16 characters or more"),
        ("# a\ntrainer", "line 2"),
        (f"a {TOKEN}\na {TOKEN}", "line 2 of .* names a again"),
    ],
)
def test_malformed_tokens(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=message) as caught:
        read_tokens(path)
    assert caught.value.key == "tokens"


def test_secrets_that_others_can_read(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"a {TOKEN}")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"tokens: others may read .*; chmod 600 it"):
        read_tokens(path)
    key = tmp_path / "key"
    key.write_bytes(files.key.read_bytes())
    key.chmod(0o644)
    with pytest.raises(ConfigError, match=r"tls\.key: others may read"):
        serve("localhost:0", tls=Tls(files.certificate, key))
    with pytest.raises(ConfigError, match=r"tls\.certificate: .*gone can't be read"):
        serve("localhost:0", tls=Tls(tmp_path / "gone", files.key))


def test_credentials_that_make_no_sense(tmp_path: Path, files: Files) -> None:
    for arguments in (
        (files.ca, files.client_certificate, None),
        (None, files.client_certificate, files.client_key),
    ):
        with pytest.raises(ArgumentError, match="a client's certificate goes with its key"):
            Credentials(*arguments)
    with (
        AlignerClient(f"unix:{tmp_path}/a.sock", credentials=Credentials(files.ca)) as client,
        pytest.raises(ArgumentError, match="is a unix socket, which has no TLS"),
    ):
        client.inventory()
    with (
        AlignerClient("localhost:1", credentials=Credentials(tmp_path / "gone")) as client,
        pytest.raises(ArgumentError, match=r"ca: .*gone can't be read"),
    ):
        client.inventory()
