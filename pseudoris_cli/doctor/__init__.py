"""Is this machine fit to run, and do the networks fit on its device?"""
