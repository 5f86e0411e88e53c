"""`make bench area=hierarchy`: what the layers remember, share and cost."""
