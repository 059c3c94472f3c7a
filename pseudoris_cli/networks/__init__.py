"""Networks in torch and exact rewritings of their arithmetic."""
