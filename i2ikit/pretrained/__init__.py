"""Pretrained networks of others: finding, downloading and caching their weights."""
