"""Part II: α-fair contextual bandits, with proofs that run."""
