"""At home in other libraries' trainers: `transformers`, `lightning`, `accelerate`, each imported only when used."""
