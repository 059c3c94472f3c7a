"""Networks and exact rewritings of their arithmetic in torch. They know tensors, not settings, files or stages."""
