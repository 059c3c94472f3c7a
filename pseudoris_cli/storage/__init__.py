"""What is kept on disk: the plan, parts, manifests, versions and locks. It knows bytes and tables, not images or networks."""
