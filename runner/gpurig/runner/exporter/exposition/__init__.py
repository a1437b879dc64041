"""What a scrape shows: names, units, labels."""
