"""What can be asked on the command line? One folder per demo, with its spec, its run and its report."""
