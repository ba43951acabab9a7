"""What only Linux has to confine a process with: Landlock, seccomp, namespaces, control groups."""
