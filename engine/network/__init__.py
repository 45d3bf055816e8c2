"""Networks as plans: addresses, published ports, name files, bridge options. Pure; `engine.service` joins it with the rest."""
