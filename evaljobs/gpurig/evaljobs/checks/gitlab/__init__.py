"""What a .gitlab-ci.yml means, beyond its schema."""
