"""Few-shot segmentation with FS-DINO."""
