"""How requests are sent: paced, retried, stored. Knows no vendor and no DataFrame."""
