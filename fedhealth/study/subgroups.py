"""The subgroups by which a model is judged: their names, and the bands of each."""

SUBGROUPS: dict[str, tuple[str, ...]] = {
    "sex": ("female", "male"),
    "age_band": ("18-44", "45-64", "65-79", "80+"),
    "race": ("american_indian", "asian", "black", "pacific_islander", "white", "other"),
}
"""By subgrouping, its bands in the order of their numbers in `Rows.groups`; -1 there is in none of them."""

AGE_BANDS = (45, 65, 80)
"""Years at which the second and later age bands begin."""
