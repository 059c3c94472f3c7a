"""Many workers by Ray: actors for each device or CPU slot, the driver the only writer."""
