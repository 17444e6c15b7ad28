"""The student: every box of the FS-DINO figure that remains at inference."""
