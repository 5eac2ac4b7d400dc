"""A sync on a disk whose power is cut: an ext4 image on a loop device, copied and mounted again (`make powercut`)."""
