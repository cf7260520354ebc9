"""How right a detector is, on five videos or on a hundred thousand; resumable, on many machines."""
