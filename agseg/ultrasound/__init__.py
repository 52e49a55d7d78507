"""Fetal ultrasound video: the fan, standard planes, localisation, timeline."""
