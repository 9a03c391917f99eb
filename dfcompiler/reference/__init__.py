"""What compiled programs are compared with: sampled inputs, other runtimes, differences."""
