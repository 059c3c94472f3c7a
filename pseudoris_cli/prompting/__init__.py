"""What a vision-language model is shown and told, and what is made of its answer. Knows no server and no network."""
