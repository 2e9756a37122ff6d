"""Keys, signatures and the roster: who said what, and who may say it."""

from fedhealth.identity.agreement import Encapsulation, encapsulate, load_or_encapsulate, pair_keys
from fedhealth.identity.keys import PartyKeys
from fedhealth.identity.roster import PublicIdentity, Role, Roster, SignedRoster
from fedhealth.identity.signatures import Signatures
from fedhealth.identity.site_secrets import SiteSecrets, seed_material

__all__ = [
    "Encapsulation",
    "encapsulate",
    "load_or_encapsulate",
    "pair_keys",
    "PartyKeys",
    "PublicIdentity",
    "Role",
    "Roster",
    "SignedRoster",
    "Signatures",
    "SiteSecrets",
    "seed_material",
]
