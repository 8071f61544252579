"""What a regularizer does to a torch model: which parameters carry it, and what structure they show."""
