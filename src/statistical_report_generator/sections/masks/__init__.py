"""What masks are: what a ticket keeps, what masks have in common, what trainings changed."""
