"""What a step says about itself: which curves a run has, and the numbers of one step."""
