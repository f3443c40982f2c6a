"""A multi-view prior for any SDXL: MV-Adapter (Huang et al., 2412.03632), whose code and weights are Apache-2.0."""
