"""What happens to a run when commands are killed, disks fail and files are damaged."""
