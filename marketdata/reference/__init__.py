"""Reference data: what there is to trade, and on which days."""
