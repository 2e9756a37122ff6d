"""Secure sums: the coordinator learns the sum over the surviving sites and nothing else.

I/O-free state machines after Bonawitz et al. 2017 (malicious variant), steps R0 to R4. Symbols:

    U0, U1, U2   sites in the plan, sites whose shares count, sites whose masked vectors count
    b_i, k_i     site i's own mask seed and the key that wraps its pair seeds; 32 bytes each
    s_ij         seed of the mask between sites i and j, HKDF(K_ij, "mask" || H(plan))
    K_ij         key agreed between i and j for this roster (E0)
    q_i, y_i     site i's vector and what it uploads
    s_i, e_i     in mode he: site i's secret of a ciphertext, which is summed in place of q_i, and its errors (`rlwe`)
    t, m         threshold of the secret sharing; the ring is the integers modulo 2^m, beside it lanes modulo 2^64
"""
