"""Compression that commutes with the sum: what is decoded from a sum of encodings is the sum, in fewer bits.

Every party derives the same codec from public values; nothing of it depends on one site's data, so a sum of encodings
modulo 2^m is the encoding of the sum. Symbols:

    x_k      values of site k, of length d            X        their sum
    p        public choice and order of entries       D        public random signs
    H        orthonormal Hadamard transform           s        public step of the rounding
    m        bits of an entry on the wire             alpha    half of the ring, in standard deviations of the sum

    encode   q_k = floor(H D x_k[p] / s + u_k) mod 2^m,  u_k uniform in [0, 1), secret
    decode   X[p] = D H' (s * centred(sum q_k mod 2^m))

The transform spreads each entry over a block, so that the entries of the sum look normal with one standard deviation, which
is known from the sum before: s = 2 alpha sd / 2^m leaves 2 alpha sd of room. Sources: Suresh et al. 2017 (rotation,
stochastic rounding), Kairouz et al. 2021 (wrap in a ring), Konecny et al. 2016 (shared random choice of entries).
"""
