"""A small runner for the tests, in the place of gitlab-runner. See ../README.md."""
