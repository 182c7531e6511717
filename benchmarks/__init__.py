"""Our recipes beside ESO's: time, memory and accuracy on the same frames."""
