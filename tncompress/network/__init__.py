"""What a compressed map is (`Spec`), in which order it is computed (`Plan`) and what that costs (`Cost`)."""
