"""The key that signs the record, and DSSE envelopes (Dead Simple Signing Envelope 1.0) around what is signed.

The private key lies outside of runs: in the file that $COHORT_KEY names, or in the user's configuration folder. It is
made when it is first asked for. Public keys of others lie in `known_keys` beside it.
"""

from __future__ import annotations

import base64
import os
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from cohort.types import UserError
from cohort.wording import one_line

TYPE = "application/vnd.cohort.record-entry+json"


@dataclass(frozen=True, slots=True)
class Key:
    """A private key, with the public half that the record shows."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public key."""
        return _raw(self.private.public_key())

    def sign(self, payload: bytes) -> bytes:
        """The envelope around a payload, one line of JSON without its end."""
        return envelope(payload, key_id(self.public), self.private.sign(_encoded(payload)))


def key_id(public: bytes) -> str:
    """The name of a key: the SHA-256 of its 32 bytes."""
    return sha256(public).hexdigest()


def key_file() -> Path:
    """Where the own private key is or would be."""
    if named := os.environ.get("COHORT_KEY"):
        return Path(named).expanduser()
    if os.name == "nt":
        folder = Path(os.environ.get("APPDATA") or Path.home() / "AppData/Roaming")
    elif sys.platform == "darwin":
        folder = Path.home() / "Library/Application Support"
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return folder / "cohort" / "key.pem"


def own_key(run: Path) -> Key | str:
    """The own key, made if there is none; or why there is none. Raises `UserError` for a file that holds another thing,
    and for one inside of the run, which would go wherever the run goes.
    """
    try:
        file = key_file()
        if file.absolute().resolve().is_relative_to(run.absolute().resolve()):
            raise UserError(f"the key {file} lies in the run that it would sign: name another place in $COHORT_KEY")
        if not file.exists():
            _make(file)
        found = load_pem_private_key(file.read_bytes(), None)
    except (OSError, RuntimeError) as error:  # no home
        return one_line(error)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"{file} holds no private key that can be read ({one_line(error)}); mend or remove it"
        ) from None
    if not isinstance(found, Ed25519PrivateKey):
        raise UserError(f"{file} holds a {type(found).__name__}, and the record is signed with Ed25519; name another")
    return Key(found)


def _make(file: Path) -> None:
    """A new key in a file that only its owner reads, and its public half beside it. Of two processes that make one at
    the same moment the first counts.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    new = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
        out.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        os.link(new, file)
        file.with_suffix(".pub").write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
    except FileExistsError:
        pass
    finally:
        new.unlink()


def known_keys(named: Path | None = None) -> dict[str, Ed25519PublicKey]:
    """The public keys that are trusted, by their names: the one in the file `named`; else the own one, and those in
    `known_keys` beside it. Raises `UserError` for a file that holds none.
    """
    if named is not None:
        return _by_id(named)
    try:
        file = key_file()
        files = [file] if file.is_file() else []
        files += sorted(file.with_name("known_keys").glob("*.p*"))
    except (OSError, RuntimeError):
        return {}
    return {name: key for one in files for name, key in _by_id(one).items()}


def _by_id(file: Path) -> dict[str, Ed25519PublicKey]:
    try:
        content = file.read_bytes()
        private = b"PRIVATE KEY" in content
        found = load_pem_private_key(content, None) if private else load_pem_public_key(content)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{file} holds no key that can be read: {one_line(error)}") from None
    public = found.public_key() if isinstance(found, Ed25519PrivateKey) else found
    if not isinstance(public, Ed25519PublicKey):
        raise UserError(f"{file} holds a {type(found).__name__}, and the record is signed with Ed25519")
    return {key_id(_raw(public)): public}


def envelope(payload: bytes, name: str, signature: bytes) -> bytes:
    """The one way in which an envelope is written."""
    signatures = [{"keyid": name, "sig": base64.b64encode(signature).decode()}]
    return orjson.dumps({"payload": base64.b64encode(payload).decode(), "payloadType": TYPE, "signatures": signatures})


def opened(line: bytes) -> tuple[bytes, str, bytes]:
    """The payload of an envelope, the name of the key and the signature. Raises `ValueError` for anything that is not
    written as `envelope` writes it.
    """
    try:
        found = orjson.loads(line)
        payload, signed = base64.b64decode(found["payload"], validate=True), found["signatures"][0]
        name, signature = signed["keyid"], base64.b64decode(signed["sig"], validate=True)
        if envelope(payload, name, signature) == line:
            return payload, name, signature
    except (KeyError, TypeError, IndexError, AttributeError):
        pass
    raise ValueError("it is no envelope of this form")


def is_signed(key: Ed25519PublicKey, payload: bytes, signature: bytes) -> bool:
    """Whether the holder of the key has signed the payload."""
    try:
        key.verify(signature, _encoded(payload))
    except InvalidSignature:
        return False
    return True


def public_key(raw: bytes) -> Ed25519PublicKey:
    """The key of these 32 bytes."""
    return Ed25519PublicKey.from_public_bytes(raw)


def _encoded(payload: bytes) -> bytes:
    """What DSSE signs: the pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(payload), payload)


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
