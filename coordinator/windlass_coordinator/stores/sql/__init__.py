"""What the SQL databases share: times as numbers, and the queries behind what users look at."""
