"""Which machine takes what the sites upload: that of the masked vectors, or one that has ciphertexts beside the masked keys."""

from fedhealth.errors import MissingObjectError, ProtocolError
from fedhealth.exchange.board import Reader
from fedhealth.rounds.objects import address_of, sum_key
from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.encrypted import EncryptedSum
from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.rlwe import CipherSum

Uploads = CoordinatorSum | EncryptedSum


def uploads_of(board: Reader, machine: CoordinatorSum, *, cipher_length: int | None) -> Uploads:
    """The machine for R2 and R4 of a sum.

    Args:
      board: where the ciphertexts are.
      machine: of the sum.
      cipher_length: of the vectors, if they come encrypted (`fedhealth.rounds.layout.SumLayout`).

    Raises:
      PolicyError: more sites than a sum of ciphertexts is exact for.
    """
    if cipher_length is None:
        return machine
    plan = machine.plan
    return EncryptedSum(machine, CipherSum(plan, cipher_length), lambda site: _ciphertext(board, plan, site))


def _ciphertext(board: Reader, plan: SumPlan, site: str) -> bytes:
    key = sum_key(plan, "cipher", site)
    try:
        return board.read(key, kind="cipher", sender=site, role="site", **address_of(plan)).payload
    except MissingObjectError:
        raise ProtocolError(f"site {site} sent a key and no ciphertext", f"leave {site} out") from None
