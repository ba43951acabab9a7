"""What is made of record.json, and of nothing else, for people to read: card.md, card.html, a page in the terminal."""
