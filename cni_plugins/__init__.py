"""The CNI plugin suite: interface and meta plugins, and the shared ground beneath them."""

VERSION = "0.1.0"
