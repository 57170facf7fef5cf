"""`python -m i2ikit`, which is what torchrun starts."""

from i2ikit.cli.main import main

if __name__ == "__main__":
    main()
